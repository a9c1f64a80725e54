"""Other libraries' attacks and defences, and advkit's models for them; theirs is imported only when used."""
