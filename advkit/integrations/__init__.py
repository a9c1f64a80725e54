"""Attacks, defences and models of other libraries, which are imported only when used."""
