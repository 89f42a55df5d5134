"""The desk: a read-only page, API and metrics over a folder of results.

It reads what others wrote (journals, results, stores) and never a running session's memory: a desk
that is slow or dead delays no candle. Files say what; `guard`, `credentials` and `server` say who.

Left out: anything that writes, orders or trains. The extra `desk` brings what serves it; nothing
outside this folder and its command imports it.
"""
