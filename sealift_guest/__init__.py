"""What runs inside a measured VM: its keys and its owner's orders, the secure processor, the encrypted disk.

Shipped into the image file by file, as `/usr/libexec/sealift/guest`, `processor.py` and `data-disk`: each uses the
standard library and its neighbours, nothing of the rest.

============= ======================================================================================
guest         makes this boot's keys, answers the owner's question, takes what he releases
processor     asks the secure processor for a report or for what was injected
data_disk     opens, formats and rekeys the encrypted disk
============= ======================================================================================
"""
