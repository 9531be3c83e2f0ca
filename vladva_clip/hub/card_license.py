"""A license in a card's metadata: the Hub's own names, and `other` with name and link for the rest."""

import re

# the Hub's license identifiers (huggingface.co/docs/hub/repositories-licenses), without "unknown" and "other"
HUB_LICENSES = (
    *("afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m"),
    *("bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause"),
    *("bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0"),
    *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0"),
    *("cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m"),
    *("deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2"),
    *("fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "grok2-community"),
    *("h-research", "intel-research", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2", "llama3"),
    *("llama3.1", "llama3.2", "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl"),
    *("odc-by", "ofl-1.1", "openmdw-1.0", "openmdw-1.1", "openrail", "openrail++", "osl-3.0", "pddl", "postgresql"),
    *("unlicense", "wtfpl", "zlib"),
)
# as the model cards of Qwen's own releases link it
_TEXTS = {"qwen-research": "https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct/blob/main/LICENSE"}


def metadata(license: str | None, hub_base: str | None) -> dict[str, str]:
    """Return the keys of a card's metadata that state a license.

    Args:
        license: its name; None where it is not known.
        hub_base: the base's Hub id, whose page shows its license; None for a base that is not on the Hub.
    """
    if license in HUB_LICENSES:
        return {"license": license}
    name = re.sub(r"[^a-z0-9.]+", "-", license.lower()).strip("-") if license else "see-the-base"
    link = _TEXTS.get(license) or (f"https://huggingface.co/{hub_base}" if hub_base else None)
    return {"license": "other", "license_name": name, **({"license_link": link} if link else {})}
