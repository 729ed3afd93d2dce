"""The proxy between organisations: TLS, a login for each member, and what a site's login may call."""

from infra.nginx.configuration import Proxy, configuration, forwarder, give_login, make_proxy

__all__ = ["Proxy", "configuration", "forwarder", "give_login", "make_proxy"]
