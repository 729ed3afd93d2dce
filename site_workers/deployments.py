"""A site's own pool and its two deployments, as the Prefect server should have them."""

from __future__ import annotations

from prefect.client.orchestration import PrefectClient

from infra import deploying
from infra.asking import CAMPAIGN_FLOW, DEPLOYMENTS, SITE_FLOW
from infra.deploying import Change, Wanted
from site_workers.campaign import CampaignRequest
from site_workers.round import SiteRequest

POOL_TYPE = "fedround-site"


async def deploy_site(client: PrefectClient, site: str, *, dry: bool = False, repair: bool = False) -> list[Change]:
    """Register one site's pool and deployments, and nothing else.

    dry: only say what would change. repair: only what is lost.
    """
    one, all_rounds = (DEPLOYMENTS[flow].format(site=site) for flow in (SITE_FLOW, CAMPAIGN_FLOW))
    wanted = (
        Wanted(SITE_FLOW, one, site, f"One round at site '{site}'. Started by the coordinator; carries no code.",
               SiteRequest.model_json_schema()),
        Wanted(CAMPAIGN_FLOW, all_rounds, site, f"All rounds of one campaign at site '{site}'. Started by the coordinator; "
               "carries no code.", CampaignRequest.model_json_schema()))
    return [await deploying.pool(client, site, POOL_TYPE, dry=dry),
            *[await deploying.deployment(client, one, dry=dry, repair=repair) for one in wanted]]
