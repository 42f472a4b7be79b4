"""The emulated kernel side: messaging.c, miscdev.c and keystore.c without a kernel.

Plain synchronous code: no clock, no I/O, no tasks. What would block says so and is resumed,
interrupted or timed out by whoever holds the clock.
"""
