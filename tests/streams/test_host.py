"""The topology on the Faust host: a request goes in, its result comes out."""

from agents.testing import request_of
from tests.streams.plays import Play

YAML = """
providers:
  defaults: {default_model: small}
  models:
    - {name: large, provider_model_id: vendor/large, backend_refs: [{name: north}]}
    - {name: small, backend_refs: [{name: south}]}
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [python]}
    embeddings:
      - {name: maths, threshold: 0.9, candidates: [solve this equation]}
  decisions:
    - name: code
      rules:
        operator: OR
        conditions:
          - {type: keyword, name: code}
          - {type: embedding, name: maths}
      modelRefs: [{model: large}, {model: small}]
"""


async def test_every_request_gets_one_result() -> None:
    """Requests in two partitions are observed, decided, dispatched, called and answered, each once."""
    async with Play(YAML) as play:
        await play.publish()
        await play.worker("w1")
        for n in range(40):
            play.ask(
                request_of(
                    play.policy, f"r{n}", f"python {n}" if n % 2 else f"hello {n}", now=play.clock.now
                ),
                n % 2,
            )
        await play.until(lambda: play.total(["results"]) == 40, "40 results")
        await play.quiet()
        models = [r.model for r in play.records("results")]

        assert sorted(models) == ["large"] * 20 + ["small"] * 20
        assert {m for _, m, _ in play.provider.calls} == {"vendor/large", "small"}
        assert len(play.provider.calls) == 40
