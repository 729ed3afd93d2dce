"""What does a person's outpatient care of a year cost? Six sites of a health insurance experiment; see README.md.

A table as it is, with gaps: no code encodes rows. The bounds are those of the experiment's plans and questionnaires, which
are public, or round numbers that hold for everybody. The site itself is not a feature.
"""

from torch import nn

from fedround.learning.columns import Category, Numeric, Truth
from fedround.learning.tasks import Count

NAME = "insurance-mlp"
TASK = Count(max=1000)          # dollars of the 1970s; more counts as so many
TARGET = "spending"

COLUMNS = (
    Category("coinsurance", values=(0, 25, 50, 95, 100)),       # per cent that the family pays itself
    Truth("deductible"),                                        # an individual deductible, for outpatient care alone
    Numeric("most_paid", low=0, high=1000),                     # dollars that a family pays in a year at most
    Numeric("incentive", low=0, high=1300),                     # dollars for taking part
    Numeric("age", low=0, high=65),
    Truth("female"),
    Numeric("income", low=0, high=30_000),                      # of the family, in dollars a year
    Numeric("education", low=0, high=25),                       # years, of the head of the family
    Numeric("family", low=1, high=15),
    Category("health", values=("excellent", "good", "fair", "poor")),       # as the person sees it
    Numeric("diseases", low=0, high=60),
    Numeric("limited", low=0, high=1),
    Numeric("mental_health", low=0, high=100),
    Numeric("general_health", low=0, high=100),                 # a quarter of the persons, most of them children, have none
)


def build_model(features: int) -> nn.Module:
    """One hidden layer of 16."""
    return nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, 1))
