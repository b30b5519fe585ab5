"""Bytes and fields: each format is read and written here, and nothing is judged.

A module holds one format: its parser, its fields, and the writer that an emulated secure processor or an owner needs.
Parsers raise `sealift.errors.UnusableInput` and nothing else.
"""
