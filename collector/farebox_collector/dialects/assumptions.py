"""Every assumption that a dialect can make, with its meaning; receipts show the names."""

ASSUMPTIONS: dict[str, str] = {
    "wallet_missing": "The span names no wallet: `unattributed` pays.",
    "wallet_name_unusable": "The wallet's name is too long or unprintable: `unattributed` pays.",
    "operation_unknown": "The operation is not in the conventions; it has usage and is charged as a call.",
    "input_tokens_missing": "Output was reported without input: the input counts as 0.",
    "cache_outside_input": "The emitter is unknown; the counts show that the cache is not part of the input.",
    "cache_assumed_inside_input": "The emitter is unknown; the cache counts as input, as specified.",
    "cache_over_input": "The emitter includes the cache in the input, but reports more cache than input: "
    "counted separately.",
    "cache_not_reported": "The emitter never reports cached tokens: all input is charged at the full rate.",
    "cache_write_lifetime_unknown": "Cache writes are charged at the price for five minutes, the providers' default.",
    "cache_inside_input": "The emitter counts the cache separately, but the total shows it included.",
    "reasoning_over_output": "More reasoning than output was reported: the reasoning is separate, and was added.",
    "reasoning_added_to_output": "The output was reported without the reasoning: the reasoning was added.",
    "reasoning_inside_output": "The emitter reports output without the reasoning, but the total shows it included.",
    "output_from_total": "The total exceeds its parts: the rest is output that no other count reports.",
    "input_from_total": "Only the total was reported, or the total and the output: the input is the rest.",
    "total_does_not_add_up": "No reading of the counts adds up to the total; the parts are charged.",
    "counts_ambiguous": "Several readings of the counts add up to the total; the emitter's usual counting decided.",
    "modalities_beside_text": "Audio and images exceed the count that should include them: counted separately.",
    "modalities_over_text": "Audio and images exceed the count that includes them: reduced to it.",
    "modalities_overlap_cache": "Some of the audio or images must have been cached, and the amount is not reported: "
    "the smallest possible amount is used.",
    "modalities_over_cache": "Cached audio, images and video exceed the cached tokens: reduced to them.",
    "count_unreadable": "A count is not a number: it was ignored.",
    "count_over_a_billion": "A count is over 1,000,000,000: the call is kept without its counts, and not charged.",
    "output_counts_the_start_twice": "The emitter adds the few tokens of a stream's first event to its final count.",
    "provider_not_openai": "The span names OpenAI, and a model that OpenAI does not sell: its price is looked up "
    "by the model's name.",
    "billing_fact_unusable": "A speed, region, exposure or stated cost was unusable and left out.",
    "line_unusable": "A line of another model was unusable and left out.",
    "provider_from_model": "The span names no provider, or not the model's; the model's name gave the provider.",
    "under_subscription": "A subscription pays for the call: its cost is 0, and its list price is kept beside it.",
    "usage_json_unusable": "A usage attribute in JSON was too long or malformed and was left out.",
}

DOUBTFUL = frozenset(
    {
        "cache_assumed_inside_input",
        "cache_inside_input",
        "cache_not_reported",
        "cache_outside_input",
        "cache_over_input",
        "count_over_a_billion",
        "count_unreadable",
        "counts_ambiguous",
        "input_from_total",
        "input_tokens_missing",
        "line_unusable",
        "billing_fact_unusable",
        "modalities_beside_text",
        "modalities_over_cache",
        "modalities_over_text",
        "modalities_overlap_cache",
        "operation_unknown",
        "output_counts_the_start_twice",
        "output_from_total",
        "provider_from_model",
        "provider_not_openai",
        "reasoning_inside_output",
        "reasoning_over_output",
        "total_does_not_add_up",
        "usage_json_unusable",
    }
)
"""Assumptions that mean that the cost of a call may be wrong."""
