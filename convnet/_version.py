# SPDX-License-Identifier: MIT
"""The version, in a file that can be read before anything is compiled."""

__version__ = "0.1.0"
