"""Wrong answers that readers typically give, and what the check must say to them."""

from attnmem.published import Claim

SOURCE = "Hugging Face 2024", "https://huggingface.co/blog/llama31"


def claims(kept, again=None, last=None, source=SOURCE):
    """A function that makes claims with what these functions of model and tokens compute."""

    def my_claim(model, tokens, printed, place):
        mistaken = again and (lambda: again(model, tokens))
        return Claim(
            "keys and values",
            *source,
            printed,
            last or place,
            "GiB",
            lambda: kept(model, tokens),
            mistaken=mistaken,
        )

    return my_claim


def right(model, tokens, heads=1):
    return 4 * model.layers * heads * model.kv_heads * model.head_dim * tokens / 2**30


def twice(model, tokens):
    return right(model, tokens, heads=2)


WRONG = [
    ("published-1", 32.0, "right in MiB"),
    ("published-1", 30.52, "wrong way"),
    ("published-1", 2.097, "one head"),
    ("published-1", 67.1, "too large, by a factor of 2"),
    ("published-2", 10240, "all heads together"),
    ("published-2", 80, "heads of keys"),
    ("published-2", 128, "without dropout"),
    ("published-2", 10, "a, the number of heads, is missing"),
    ("published-3", 524.288, "not of the 32 of queries"),
    ("published-3", 65.536, "two tensors"),
    ("published-3", 4.096, "every layer"),
    ("published-3", 128, "in KiB"),
    ("published-4", 128, "sixteen times"),
    ("published-4", 16, "divide the model's heads"),
    ("published-4", 1, "smaller still"),
    ("published-5", 11, "in units of the last place"),
    ("published-5", 1.0, "can still be both"),
    ("published-5", 1.5, "GB and GiB"),
    ("published-5", 2.2, "MB and MiB"),
    ("published-6", 1.95, "expected a function"),
    ("published-6", lambda *_: 1.95, "must return a Claim, and returned a float"),
    ("published-6", claims(right, last=1.0), "must be what was printed"),
    ("published-6", claims(right), "let mistaken compute that"),
    ("published-6", claims(right, right), "does mistaken take heads twice"),
    ("published-6", claims(twice), "the source took twice as many"),
    ("published-6", claims(lambda m, n: right(m, n) * 4), "not of all heads of queries"),
    ("published-6", claims(lambda m, n: right(m, n) * 1.024**3), "in GB"),
    ("published-6", claims(lambda m, n: right(m, n) / 2), "two tensors"),
    ("published-6", claims(right, twice, source=("", "")), "by which source"),
    ("published-6", claims(lambda m, n: 1.95, twice), "computed is 1.95"),
]
