"""Provider `local`: a small language model on this machine, without a key or an account.

The engine (llama.cpp) lives in a worker process (`worker.py`); the gateway's own process never imports it.
"""
