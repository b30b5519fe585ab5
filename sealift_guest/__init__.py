"""The programs inside a measured VM: for its keys and its owner's orders, the secure processor, the encrypted disk.

The image has them as `/usr/libexec/sealift/guest`, `processor.py` and `data-disk`. Each uses only the standard library
and the other two.

============= ======================================================================================
guest         makes this boot's keys, answers the owner's question, receives the released keys
processor     asks the secure processor for a report or for an injected secret
data_disk     opens, formats and rekeys the encrypted disk
============= ======================================================================================
"""
