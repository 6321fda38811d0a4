"""Risk domains: one short list that the categories of different prompt sets are sorted into.

A domain says what a coverage matrix has a row for. Categories keep the names of their source; those
without an entry here belong to no domain, and are shown so.
"""

from __future__ import annotations

ILLEGAL = "illegal and violent acts"
SELF_HARM = "self-harm"
SEXUAL = "sexual content and child safety"
HATE = "hate and harassment"
REPRESENTATION = "representation and toxicity"
MISINFORMATION = "misinformation and politics"
FRAUD = "fraud and manipulation"
PRIVACY = "privacy"
CYBER = "malware and cyber"
WEAPONS = "weapons and hazardous substances"
ADVICE = "economic harm and expert advice"
AUTONOMY = "autonomy and deception"

DOMAINS: tuple[str, ...] = (
    REPRESENTATION,
    ILLEGAL,
    SELF_HARM,
    SEXUAL,
    HATE,
    MISINFORMATION,
    FRAUD,
    PRIVACY,
    CYBER,
    WEAPONS,
    ADVICE,
    AUTONOMY,
)

# The 11 of HEx-PHI in their order (Qi et al. 2024), so that category_N.csv is entry N - 1.
POLICY_CATEGORIES: tuple[str, ...] = (
    "Illegal Activity",
    "Child Abuse Content",
    "Hate/Harass/Violence",
    "Malware",
    "Physical Harm",
    "Economic Harm",
    "Fraud/Deception",
    "Adult Content",
    "Political Campaigning",
    "Privacy Violation Activity",
    "Tailored Financial Advice",
)

_OF_CATEGORY: dict[str, str] = {
    **dict(
        zip(
            POLICY_CATEGORIES,
            (
                ILLEGAL,
                SEXUAL,
                HATE,
                CYBER,
                ILLEGAL,
                ADVICE,
                FRAUD,
                SEXUAL,
                MISINFORMATION,
                PRIVACY,
                ADVICE,
            ),
            strict=True,
        )
    ),
    # the demo language's names for the same, where they differ
    "Child Safety": SEXUAL,
    "Hate/Harassment": HATE,
    "Privacy Violation": PRIVACY,
    # BeaverTails
    "animal_abuse": ILLEGAL,
    "child_abuse": SEXUAL,
    "controversial_topics,politics": MISINFORMATION,
    "discrimination,stereotype,injustice": REPRESENTATION,
    "drug_abuse,weapons,banned_substance": WEAPONS,
    "financial_crime,property_crime,theft": ILLEGAL,
    "hate_speech,offensive_language": HATE,
    "misinformation_regarding_ethics,laws_and_safety": MISINFORMATION,
    "non_violent_unethical_behavior": ILLEGAL,
    "privacy_violation": PRIVACY,
    "self_harm": SELF_HARM,
    "sexually_explicit,adult_content": SEXUAL,
    "terrorism,organized_crime": ILLEGAL,
    "violence,aiding_and_abetting,incitement": ILLEGAL,
    # HarmBench
    "chemical_biological": WEAPONS,
    "cybercrime_intrusion": CYBER,
    "harassment_bullying": HATE,
    "illegal": ILLEGAL,
    "misinformation_disinformation": MISINFORMATION,
    # XSTest
    "nons_group_real_discr": REPRESENTATION,
    "real_group_nons_discr": REPRESENTATION,
    "contrast_discr": REPRESENTATION,
    "privacy_public": PRIVACY,
    "privacy_fictional": PRIVACY,
    "contrast_privacy": PRIVACY,
}


def domain_of(category: str) -> str:
    """The risk domain of a category as its source spells it; empty where it belongs to none."""
    return _OF_CATEGORY.get(category, "")
