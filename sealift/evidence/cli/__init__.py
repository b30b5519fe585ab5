"""`sealift evidence …`: options, files and output around the library."""
