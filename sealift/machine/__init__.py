"""The machine: one Debian tree, the VM made of it, and QEMU.

What the rest of Sealift calls, in the order of a launch::

    tree = build_tree(RECIPE, say=print)      # tree.py     root of every namespaced host
    files = files_dir()                       # recipe.py   overlay lower directory above the tree
    disk = build_disk(tree, files)            # disk.py     root disk of every VM, read-only
    create_data_disk(path)                    # disk.py     /var/lib/docker of one VM
    initrd = build_initrd(tree)               # initrd.py   modules, busybox and the init
    guest_initrd(path, initrd, configuration) # boot.py     the same, with one VM's name, address and keys
    argv = qemu_argv(VirtualMachine(...))     # qemu.py     paths as the provider sees them

Nothing here starts a VM or makes an interface: that is the lab's, which has to end them too.
"""
