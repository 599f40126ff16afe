"""The InfiniBand fabric of a virtual rack: switches, adapters and cables that the real opensm and diagnostics talk to.

wiring     what is plugged into what, as values; of a rack's plan, and with faults in it (faults)
model      switches, adapters and ports as they behave: training, states, forwarding
mad        management datagrams, and the frames in which the umad simulator's clients carry them
agents     what a port answers to a subnet manager; counters, to a performance manager
server     the sockets that clients (libumad2sim of ibsim-utils) attach to
process    the process of a virtual rack that serves its fabric
tools      opensm and infiniband-diags, from Debian, over it
"""
