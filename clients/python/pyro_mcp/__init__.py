"""Commands in virtual machines of their own: the Python client of ``pyro``.

>>> from pyro_mcp import Pyro
>>> Pyro().run_in_vm("debian:12", command="git --version")["stdout"]  # doctest: +SKIP
'git version 2.39.5\\n'
"""

from ._error import PyroError
from ._pyro import Pyro
from ._server import Server, create_server

__all__ = ["Pyro", "PyroError", "Server", "create_server"]
__version__ = "2.1.0"
