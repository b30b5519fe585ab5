"""Which stock programs move: each is started as its package starts it, moved there, back and there, and watched."""
