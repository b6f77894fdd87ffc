"""Whether a structure is sound, new, stable, and what was asked for.

``records`` holds the verdict on a structure, ``crystals`` and ``molecules`` the checks behind it,
``matching`` what counts as the same, ``relax``, ``hull`` and ``energies`` what is stable,
``reconstruction`` what an autoencoder gives back. ``run`` evaluates a set: ``entries`` in, ``rows``
by ``measures``, then a ``summary``, the ``report`` of one set or the ``table`` of several.
"""
