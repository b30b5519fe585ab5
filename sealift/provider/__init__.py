"""The provider's side: start a VM from an image, give evidence, inject a secret, stop, list. It has no key.

It runs on the hypervisor's host, with little more than Python's standard library. Orders come over SSH, to an account
that can do nothing else (`gate`). The owner's side of that connection is `client`.
"""
