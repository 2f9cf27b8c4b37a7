"""Everything that a dialect may have to assume, with its meaning; receipts show the names."""

ASSUMPTIONS: dict[str, str] = {
    "wallet_missing": "The span names no wallet: `unattributed` pays.",
    "wallet_name_unusable": "The wallet's name is too long or unprintable: `unattributed` pays.",
    "operation_unknown": "The operation is none that the conventions name; it has usage and is charged as a call.",
    "input_tokens_missing": "Output was reported and input was not: the input is taken for 0.",
    "cache_outside_input": "The emitter is unknown; the counts show that the cache is not part of the input.",
    "cache_assumed_inside_input": "The emitter is unknown; the cache is taken for a part of the input, "
    "as the specification has it.",
    "cache_over_input": "The emitter counts the cache as a part of the input, yet reports more cache than input: "
    "taken for apart.",
    "cache_not_reported": "The emitter never tells of cached tokens: all input is charged at the full rate.",
    "cache_write_lifetime_unknown": "Cache writes are charged at the price for five minutes, the providers' default.",
    "reasoning_over_output": "More reasoning than output was reported: all output is taken for reasoning.",
    "reasoning_added_to_output": "The emitter reports output without the reasoning: it was added.",
    "output_from_total": "The emitter's output leaves out the reasoning: total minus input was taken.",
    "total_does_not_add_up": "The reported total is not the sum of its parts; the parts are charged.",
    "output_counts_the_start_twice": "The emitter adds the few tokens of a stream's first event to its final count.",
    "provider_from_model": "The span names no provider; it was told from the model's name.",
    "usage_json_unusable": "A usage attribute in JSON was too long or malformed and was left out.",
}
