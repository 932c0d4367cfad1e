"""What the AUTOMATIC1111 webui loads; all is in lib_dumpunet, which is imported while this folder can be found."""

from lib_dumpunet.hosts.webui.register import register
from lib_dumpunet.hosts.webui.script import AlwaysOnScript, Panel

__all__ = ["AlwaysOnScript", "Panel"]

register()
