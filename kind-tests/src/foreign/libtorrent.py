"""libtorrent as a program: client.py TORRENT DIRECTORY PORT. Downloads into DIRECTORY, or seeds what is there, until killed."""
import sys
import time

import libtorrent

torrent, directory, port = sys.argv[1:]
session = libtorrent.session({
    "listen_interfaces": f"0.0.0.0:{port}",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # Eagle speaks TCP; trying uTP first would cost three seconds.
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    # In a test all peers have one address.
    "allow_multiple_connections_per_ip": True,
})
parameters = libtorrent.add_torrent_params()
parameters.ti = libtorrent.torrent_info(torrent)
parameters.save_path = directory
handle = session.add_torrent(parameters)
while True:
    status = handle.status()
    print(status.state, status.progress, status.num_peers, flush=True)
    if status.errc.value() != 0:
        sys.exit(status.errc.message())
    time.sleep(1)
