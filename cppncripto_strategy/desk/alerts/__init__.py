"""Alerts: what sessions wrote, brought to people, by a process of its own.

    rows       a session's journals -> alerts; nothing of a session's memory is asked
    session    one session from outside: new rows, its process, what does not come
    watch      all sessions of a folder, and its disk, look by look
    outbox     what each target waits for: batches, quiet hours, retries, bounds
    delivery   a message through one target: apprise (100+ services), or a program (`hook`)
    settings   alerts.toml, and where the addresses come from
    state      what was read and reported, in one file that is replaced as a whole

Left out: starting, stopping or asking a session anything.
"""
