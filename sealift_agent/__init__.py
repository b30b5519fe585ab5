"""What runs on the hosts: three small programs that the controller starts over SSH and gives orders to.

They are shipped as one archive (`sealift.host.agents`) and use nothing but the standard library and the host's
own runc, CRIU, rsync and wg. Python 3.9 is enough. During the cutover they speak to each other through the tunnel;
the controller's one word is "go".

========== ========================================================================================
source     freezes, dumps, sends, and thaws again unless the gateway says that the other side has won
destination  takes pages, images and files, restores, asks the gateway for the address
gateway    holds the one decision per migration, durable, and moves the address with it
========== ========================================================================================
"""
