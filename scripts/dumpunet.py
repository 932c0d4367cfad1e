"""The script that the AUTOMATIC1111 webui loads; the code is in lib_dumpunet."""

from lib_dumpunet.hosts.webui.register import register
from lib_dumpunet.hosts.webui.script import AlwaysOnScript, Panel

__all__ = ["AlwaysOnScript", "Panel"]

register()
