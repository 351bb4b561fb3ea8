"""What an adapter learns from: where pictures and captions come from, how they are looked at, cut and put together.

No torch, and nothing of ours but `formats` and `errors`. Only `pictures` and `survey` decode (numpy, Pillow).
"""
