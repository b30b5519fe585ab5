"""An emulated secure processor: a separate process beside a VM, as swtpm emulates a TPM.

It uses the formats of AMD's firmware and chains to a lab's own root, never to AMD's. Its evidence is rejected unless a
policy names that root. The evidence says EMULATED wherever a format has a place for it. The emulation protects
nothing: anybody who runs it can read its keys and the guest's memory.
"""
