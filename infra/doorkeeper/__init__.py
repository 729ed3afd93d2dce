"""What stands between a site's login and the Prefect API: it reads what a call says, and lets through what a site needs.

nginx knows method and path (`infra/nginx`). Most calls say in their body which flow run or pool they are about, and the event
stream says it in a message. So the doorkeeper takes a site's calls apart, checks that they are about the site's own pool, and
writes them anew.
"""
