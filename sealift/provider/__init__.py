"""The provider's side: start a VM from an image, hand out evidence, inject a secret, stop, list. It holds no key.

It runs on the hypervisor's host with little more than Python's standard library, over SSH, under an account
that may do nothing else (`gate`). The owner's side of that connection is `client`.
"""
