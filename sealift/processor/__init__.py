"""The secure processor: one interface, two backends, and the guest's side.

`interface` defines what a processor does for one VM. `qemu` drives AMD's own through QEMU. `emulated` is a process
beside the VM that makes the same bytes under a lab's root, as swtpm emulates a TPM. The guest's side is
`sealift_guest.processor`, which is part of the VM and uses the backend that it finds. Code above the interface does not
know which backend it uses.
"""
