"""The former place of `UnrestrictedSettings`, which scripts import from here."""

from advkit.trained_attacks.latent.settings import UnrestrictedSettings as UnrestrictedSettings
