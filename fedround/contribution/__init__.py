"""What each site's update did for a round's model: Shapley values of the committed updates, as a word on the side.

::

    shapley      how a value is split between players
    coalitions   the models that parts of the cohort would have made
    split        a round's value, split, and how much of it is noise
    said         the document that lies beside the commit
    payout       points for contribution and reliability

It is computed from what is committed, costs no privacy, and nothing that weighs, judges or asks a site may read it.
"""
