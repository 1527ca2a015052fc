"""``ctx.step.parallel``: concurrent branches, each durable."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.definitions.callbacks import Callback
from durable_jobs.models import Step
from durable_jobs.testing import Kit
from project.shop.models import Tenant
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused


def test_branches_of_a_dict_return_a_dict_in_its_order(start: Start):
    def both(ctx):
        return list(ctx.step.parallel("p", {"b": lambda: 1, "a": lambda: 2}).items())

    assert start(both).result() == [("b", 1), ("a", 2)]


def test_branches_of_a_list_return_a_list_in_its_order(start: Start, later: Later):
    def sleeper(ctx, hours):
        def branch():
            ctx.step.sleep("nap", f"{hours}h")
            return hours

        return branch

    def racing(ctx):
        return ctx.step.parallel("p", [sleeper(ctx, hours) for hours in (3, 1, 2)])

    assert later(start(racing), "3h").result() == [3, 1, 2]


def test_parallel_without_branches_returns_nothing(start: Start):
    def empty(ctx):
        return [ctx.step.parallel("list", []), ctx.step.parallel("dict", {})]

    assert start(empty).result() == [[], {}]


# What branches contain


def test_branch_may_contain_any_step(start: Start, later: Later, durable_kit: Kit):
    @durable.function(id="tests.child")
    def child(ctx):
        ctx.step.sleep("rest", "1h")
        return ctx.event.data["number"] + 1

    def group(ctx):
        with ctx.step.group("inside"):
            return ctx.step.run("grouped", lambda: "in a group")

    def atomic(ctx):
        tenant = ctx.step.atomic("create", Tenant.objects.create, name="Ann")
        return tenant.name

    def flaky(ctx):
        calls.append(1)
        if len(calls) < 3:
            raise Refused("not yet")
        return len(calls)

    calls: list[int] = []

    def everything(ctx):
        step = ctx.step
        return step.parallel(
            "p",
            {
                "run": lambda: step.run("work", lambda: "done"),
                "atomic": lambda: atomic(ctx),
                "sleep": lambda: step.sleep("nap", "2h"),
                "event": lambda: step.wait_for_event("ask", "shop/answered").data,
                "signal": lambda: step.wait_for_signal("sign", "go"),
                "child": lambda: step.invoke("call", child, {"number": 1}),
                "started": lambda: bool(step.start("begin", child, {"number": 5})),
                "sent": lambda: len(step.send_event("tell", durable.NewEvent("a/b"))),
                "group": lambda: group(ctx),
                "retried": lambda: step.run("try", flaky, ctx),
                "callback": lambda: step.wait_for_callback("back", tokens.append),
                "approved": lambda: step.approve("may", "x", "shop.change_order"),
            },
        )

    tokens: list[Callback] = []
    run = start(everything, backoff=durable.Backoff.fixed("1m"))
    assert run.status == "waiting"
    durable_kit.send("shop/answered", {"answer": 42})
    durable.signal("go", "gone")
    durable.callbacks.succeed(tokens[0].token, "called")
    durable_kit.approve("may")

    assert later(run, "2h").result() == {
        "run": "done",
        "atomic": "Ann",
        "sleep": None,
        "event": {"answer": 42},
        "signal": "gone",
        "child": 2,
        "started": True,
        "sent": 1,
        "group": "in a group",
        "retried": 3,
        "callback": "called",
        "approved": {},
    }
    assert Tenant.objects.count() == 1
    assert len(tokens) == 1


def test_branches_take_as_long_as_the_longest_of_them(
    start: Start, later: Later, durable_kit: Kit
):
    def sleeping(ctx):
        naps = {f"{hours}": hours for hours in (1, 2, 3)}
        ctx.step.parallel(
            "p",
            {
                name: lambda hours=hours: ctx.step.sleep("nap", f"{hours}h")
                for name, hours in naps.items()
            },
        )

    began = durable_kit.now()
    run = later(start(sleeping), "1d")
    assert (run.ended_at - began).total_seconds() == 3 * 3600


def test_resumed_branch_continues_while_others_wait(
    start: Start, later: Later, durable_kit: Kit
):
    done = []

    def branch(ctx, name):
        ctx.step.wait_for_event("wait", f"go/{name}")
        ctx.step.run("work", done.append, name)
        ctx.step.sleep("nap", "1h")
        ctx.step.run("more work", done.append, name.upper())

    def waiting(ctx):
        ctx.step.parallel("p", [lambda n=n: branch(ctx, n) for n in ("a", "b", "c")])

    run = start(waiting)
    durable_kit.send("go/b")
    durable_kit.run_until_idle()
    assert done == ["b"]
    run = later(run, "1h")
    assert done == ["b", "B"]
    durable_kit.send("go/c")
    durable_kit.send("go/a")

    assert later(run, "1h").status == "completed"
    assert sorted(done) == ["A", "B", "C", "a", "b", "c"]


def test_event_sent_by_one_branch_resumes_another(start: Start):
    def talking(ctx):
        return ctx.step.parallel(
            "p",
            [
                lambda: ctx.step.wait_for_event("hear", "word/said").data,
                lambda: len(
                    ctx.step.send_event("say", durable.NewEvent("word/said", {"x": 1}))
                ),
            ],
        )

    assert start(talking).result() == [{"x": 1}, 1]


def test_same_names_in_branches_are_different_steps(start: Start, later: Later):
    calls = []

    def same(ctx):
        def branch(number):
            ctx.step.run("work", calls.append, number)
            ctx.step.sleep("nap", "1h")
            return ctx.step.run("result", lambda: number)

        return ctx.step.parallel("p", [lambda n=n: branch(n) for n in range(3)])

    assert later(start(same), "1h").result() == [0, 1, 2]
    assert sorted(calls) == [0, 1, 2]


def test_steps_of_branches_are_recorded_below_them(start: Start):
    def nested(ctx):
        def branch():
            with ctx.step.group("g"):
                ctx.step.run("leaf", lambda: 1)

        ctx.step.parallel("p", {"left": branch, "right": branch})

    run = start(nested)

    def path(step: Step) -> list[str]:
        return [*(path(step.parent) if step.parent else []), step.name]

    steps = run.steps.order_by("position").select_related("parent")
    assert sorted(path(step) for step in steps) == [
        ["p"],
        ["p", "left"],
        ["p", "left", "g"],
        ["p", "left", "g", "leaf"],
        ["p", "right"],
        ["p", "right", "g"],
        ["p", "right", "g", "leaf"],
    ]
    assert {step.status for step in steps} == {"completed"}
    kinds = dict(steps.values_list("name", "kind"))
    assert kinds["p"] == "parallel"
    assert kinds["left"] == "branch"


def test_parallel_in_map_in_parallel(start: Start, later: Later):
    calls = []

    def nesting(ctx):
        def leaf(item, side):
            ctx.step.sleep("nap", "1h")
            ctx.step.run("note", calls.append, f"{item}{side}")
            return f"{item}{side}"

        def each(item):
            sides = {side: lambda side=side: leaf(item, side) for side in "xy"}
            return ctx.step.parallel("inner", sides)

        return ctx.step.parallel(
            "outer",
            {
                "mapped": lambda: ctx.step.map("each", each, [1, 2]),
                "plain": lambda: ctx.step.run("one", lambda: "plain"),
            },
        )

    assert later(start(nesting), "1h").result() == {
        "mapped": [{"x": "1x", "y": "1y"}, {"x": "2x", "y": "2y"}],
        "plain": "plain",
    }
    assert sorted(calls) == ["1x", "1y", "2x", "2y"]


def test_steps_around_and_between(start: Start, later: Later):
    def around(ctx):
        first = ctx.step.run("first", lambda: 1)
        both = ctx.step.parallel("p", [lambda: first + 1, lambda: first + 2])
        ctx.step.sleep("nap", "1h")
        again = ctx.step.parallel("p", [lambda: sum(both)])
        return [first, both, again]

    assert later(start(around), "1h").result() == [1, [2, 3], [5]]
