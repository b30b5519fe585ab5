"""An emulated secure processor: a process of its own beside a VM, as swtpm stands in for a TPM.

It speaks the bytes of AMD's firmware and chains to a lab's own root, never AMD's: evidence made here is
rejected unless a policy names that root, and says EMULATED wherever a format leaves room. It protects
nothing: whoever runs it reads its keys and the guest's memory.
"""
