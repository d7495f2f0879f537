"""The protocol, pure: no sockets, no clocks, no threads, nothing but the standard library.

Every class here is a state machine that *lends memory*: it says where the next bytes from the
link belong (``incoming``) and which bytes go out next (``outgoing``), and is told what happened
(``received``, ``sent``). Time is an argument, ``now``, in seconds. ``man/bpipe-protocol.7`` is
the specification.
"""
