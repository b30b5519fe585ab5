"""Who answers for the secure processor: one interface, two backends, and the guest's side of it.

`interface` says what a processor does for one VM. `qemu` drives AMD's own through QEMU; `emulated` is a
process beside the VM that makes the same bytes under a lab root, as swtpm stands in for a TPM. `guest` is
shipped into the VM and asks whichever of them is there. Nothing above knows which one it talks to.
"""
