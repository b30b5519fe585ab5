"""The machine: one Debian tree, the VM made of it, and QEMU.

What the rest of Sealift calls, in the order of a launch::

    tree = build_tree(RECIPE, say=print)         # tree.py         root of every namespaced host
    files = files_dir()                          # recipe.py       our own files, laid over the tree
    disk = build_disk(tree, files)               # disk.py         root of all VMs, read-only, with its hash tree
    initrd = build_initrd(tree)                  # initrd.py       modules, busybox, dmsetup, init.sh; kernel_of
    loader = build_loader(tree)                  # loader.py       the kernel behind ACPI tables of our own (acpi.py)
    image = build_image(tree, files, ...)        # image.py        all these parts for a measured VM, with verity.py
    accelerator = choose_accelerator(tree, ...)  # accelerator.py  KVM if a guest really runs with it
    create_data_disk(path)                       # disk.py         /data and /var/lib/docker of one VM
    write_configuration(path, configuration)     # boot.py         its name, addresses, keys
    argv = qemu_argv(VirtualMachine(...))        # qemu.py         paths as the provider sees them

Nothing here starts a VM or makes an interface. The lab does both, and also ends them.
"""
