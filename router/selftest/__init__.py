"""`router selftest`: does this installation keep its promise on this machine, while things go wrong around it?"""
