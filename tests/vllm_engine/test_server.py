"""Training on the rollouts of a real `vllm serve`: sampler = learner, what is posted and how often, what is refused, faults named."""

import contextlib
import http.server
import json
import signal
import threading
from collections import Counter

import pytest
import serving
import torch
from datasets import Dataset
from helpers import config, parity, row
from runs import FLOAT32, make
from test_two_ranks import run_two_ranks
from trl.generation import vllm_client

from videor1_trl import TGRPOTrainer
from videor1_trl.models.encoding import EncodedPrompt
from videor1_trl.sharing.vllm_server import GENERATE, RolloutClient
from videor1_trl.sharing.vllm_settings import Prompt


pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def served(small_models, tmp_path_factory):
    """`served(family)`: a server's address, with the settings of a trainer that asks it; one server at a time."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        running = {}

        def get(family="qwen2_5_vl"):
            if family not in running:
                stack.close()
                running.clear()
                folder = tmp_path_factory.mktemp(f"serving-{family}")
                serving.through_files(folder, patch.setattr)
                served = serving.serving(small_models(family).path, folder, "--max-model-len", "512")
                running[family], get.folder = stack.enter_context(served), folder
            return {"vllm_mode": "server", "vllm_server_base_url": running[family], "ddp_timeout": 120}

        yield get


@pytest.fixture
def posted(monkeypatch):
    """What is posted, in order: `[(path, json), ...]`."""
    found = []
    original = RolloutClient._answer

    def note(self, url, **arguments):
        found.append((url.removeprefix(self.base_url), arguments.get("json")))
        return original(self, url, **arguments)

    monkeypatch.setattr(RolloutClient, "_answer", note)
    return found


@pytest.mark.parametrize("family", ("qwen3_vl", "qwen2_5_vl"))
def test_a_server_and_the_learner_agree_before_and_behind_updates(
    family, small_models, media, served, posted, compared, tmp_path
):
    trainer = make(small_models(family), media, tmp_path, **served(family))
    trainer.train()
    assert len(compared) == 3 and max(max(pair) for pair in compared) < FLOAT32, compared
    assert all(contrast > 0 for _, contrast in compared)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all(abs(entry["sampling/importance_sampling_ratio/mean"] - 1) < 1e-3 for entry in logged)
    assert all(entry["grad_norm"] > 0 for entry in logged)
    # of the six prompts four have videos: those are asked twice, with 4 ordered and with 2 contrast rollouts
    asked = [json["sampling_params"]["n"] for path, json in posted if path == "/inference/v1/generate"]
    assert Counter(asked) == {4: 6 * 3, 2: 4 * 3}
    others = [path for path, _ in posted if path != "/inference/v1/generate"]
    update = ["/start_weight_update", "/update_weights", "/finish_weight_update"]
    update += ["/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache"]
    assert sorted(others[:4]) == sorted(["/collective_rpc"] * 2 + ["/init_weight_transfer_engine", *update[:1]])
    assert [path for path in others if path not in ("/collective_rpc", "/init_weight_transfer_engine")] == update * 3
    [announced, *_] = [json["update_info"] for path, json in posted if path == "/update_weights"]
    parameters = dict(trainer.model.named_parameters())
    assert announced["names"] == list(parameters) and set(announced["dtype_names"]) == {"float32"}
    assert announced["shapes"] == [list(each.shape) for each in parameters.values()]


def test_stale_weights_at_the_server_are_seen(small_models, media, served, tmp_path, monkeypatch):
    trainer = make(small_models(), media, tmp_path, max_steps=2, learning_rate=5e-2, **served())
    client = trainer.vllm_generation.vllm_client
    update, sent = client.update_named_params, []
    monkeypatch.setattr(
        client, "update_named_params", lambda *each: sent.append(1) if sent else update(*each) or sent.append(1)
    )
    with pytest.raises(RuntimeError, match=r"more than vllm_max_logp_difference \(0.002\)"):
        trainer.train()
    assert trainer.state.global_step == 1  # the first rollouts were right


def test_a_server_serves_adapters_evaluation_and_runs_with_skipped_videos(
    small_models, media, served, compared, tmp_path
):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=8, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights="gaussian")
    rows = [row(video=media["videos"][0]), row("broken?", video="none.mp4"), row(image=media["image"]), row("text?")]
    settings = {
        "on_bad_video": "skip",
        "eval_strategy": "steps",
        "eval_steps": 1,
        "num_generations_eval": 2,
        "max_steps": 2,
    }
    settings |= {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 4, "learning_rate": 5e-2}
    arguments = config(tmp_path, use_vllm=True, max_prompt_length=200, temperature=1.3, **settings, **served())
    data = Dataset.from_list(rows), Dataset.from_list(rows[::2])
    trainer = TGRPOTrainer(small_models().path, parity, arguments, *data, peft_config=lora)
    trainer.train()
    assert len(compared) == 4 and max(max(pair) for pair in compared) < FLOAT32, (
        compared
    )  # 2 of training, 2 of evaluation
    assert [entry["video/skipped_rows"] for entry in trainer.state.log_history if "video/skipped_rows" in entry] == [
        4,
        4,
    ]
    assert sum("eval_reward" in entry for entry in trainer.state.log_history) == 2


def test_a_servers_tokens_follow_from_the_seed_and_end_as_those_of_transformers(small_models, media, served, tmp_path):
    def run(seed):
        seen = []
        settings = {"max_steps": 1, "max_completion_length": 64, "temperature": 1.5, "seed": seed}
        trainer = make(small_models(), media, tmp_path, **settings, shuffle_dataset=False, **served())
        original = trainer._generate_single_turn
        trainer._generate_single_turn = lambda *arguments: seen.append(original(*arguments)) or seen[-1]
        trainer.train()
        return trainer, seen[0]

    trainer, (completions, logps) = run(1)
    assert completions == run(1)[1][0] != run(2)[1][0]
    assert len({tuple(each) for each in completions[:4]}) > 1  # the rows of a group
    ends, never = set(trainer.generation_kwargs["eos_token_id"]), set(trainer.generation_kwargs["suppress_tokens"])
    assert not never & {token for each in completions for token in each}
    finished = [each for each in completions if len(each) < 64]
    assert finished and all(each[-1] in ends and not ends & set(each[:-1]) for each in finished)
    assert [len(each) for each in logps] == [len(each) for each in completions] and len(completions) == 24


@pytest.mark.parametrize(
    "settings, flag",
    [
        ({"max_prompt_length": 600}, "--max-model-len 608"),
        ({"bf16": True}, "--dtype bfloat16"),
        ({"num_generations": 300, "per_device_train_batch_size": 300}, "--max-num-seqs 300"),
    ],
)
def test_a_server_that_was_started_otherwise_is_refused_with_the_flag(
    settings, flag, small_models, media, served, tmp_path
):
    with pytest.raises(RuntimeError, match=rf"was started with .*Start it with {flag}\."):
        make(small_models(), media, tmp_path, **served(), **settings)


def test_a_prompt_that_the_server_refuses_and_a_server_that_dies_are_named(small_models, media, served, tmp_path):
    too_long = [row("left " * 600)] * 6
    trainer = make(small_models(), media, tmp_path, too_long, max_steps=1, max_prompt_length=None, **served())
    with pytest.raises(RuntimeError, match=r"refuses .*/inference/v1/generate \(400\): .*maximum model length"):
        trainer.train()
    with answering({}) as address:
        trainer.vllm_generation.vllm_client.base_url = address
    trainer._last_loaded_step = 0  # as if the weights were there
    with pytest.raises(
        RuntimeError, match=rf"The vLLM server at {address} broke off, or gave no answer to /inference/v1/gen"
    ):
        trainer.train()


def test_a_server_of_another_model_is_refused_before_it_gets_weights(small_models, media, served, posted, tmp_path):
    with pytest.raises(
        RuntimeError, match=r"another model .*: .* has model_type=qwen2_5_vl for qwen2_vl\. Start it with"
    ):
        make(small_models("qwen2_vl"), media, tmp_path, **served())
    assert "/init_weight_transfer_engine" not in [path for path, _ in posted]


def test_answers_that_cannot_be_used_reach_all_ranks_as_the_reason(small_models, media, served, tmp_path, monkeypatch):
    client = make(small_models(), media, tmp_path, max_steps=1, **served()).vllm_generation.vllm_client
    token = {"token": "token_id:5", "logprob": -0.5, "top_logprobs": []}
    whole = {"index": 0, "token_ids": [5], "finish_reason": "stop", "logprobs": {"content": [token]}}
    answers = {
        "gave 0 completions": {"choices": []},
        "1 completions, ended by abort, of 1": {"choices": [{**whole, "finish_reason": "abort"}]},
        r"cannot be read or asked for \(KeyError: 'choices'\)": {"error": "none"},
        "cannot be read or asked for": {"choices": [{**whole, "logprobs": None}]},
        "0 log-probabilities of 1 tokens": {"choices": [{**whole, "logprobs": {"content": []}}]},
    }
    texts = {message: json.dumps(answer) for message, answer in answers.items()}
    texts["broke off, or gave no answer .* Expecting value"] = "<html>"

    def ask():
        found = client.generate([Prompt(EncodedPrompt([5, 6])), Prompt(None)], max_tokens=4)
        return found["completion_ids"][:1], found["logprobs"]

    for message, text in texts.items():
        with answering({GENERATE: text}) as address, pytest.raises(RuntimeError, match=message):
            monkeypatch.setattr(client, "base_url", address)
            ask()
    with (
        answering({GENERATE: "{"}, cut=True) as address,
        pytest.raises(RuntimeError, match="broke off, or gave no answer"),
    ):
        monkeypatch.setattr(client, "base_url", address)
        ask()
    with answering({GENERATE: json.dumps({"choices": [whole]})}) as address:
        monkeypatch.setattr(client, "base_url", address)
        assert ask() == ([[5]], [[[-0.5]], []])


def test_an_interruption_does_not_wait_for_a_server_that_is_silent(small_models, media, served, tmp_path, monkeypatch):
    client = make(small_models(), media, tmp_path, max_steps=1, **served()).vllm_generation.vllm_client
    prompts, begun = [Prompt(EncodedPrompt([5, 6])), Prompt(EncodedPrompt([5, 7]))], threading.Barrier(3)
    complete = client._complete
    monkeypatch.setattr(client, "_complete", lambda *each: begun.wait(60) >= 0 and complete(*each))

    def interrupt():
        begun.wait(60)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with answering({}) as address:
        monkeypatch.setattr(client, "base_url", address)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
        try:
            threading.Thread(target=interrupt).start()
            with pytest.raises(KeyboardInterrupt):
                client.generate(prompts, max_tokens=4)
        finally:
            signal.signal(signal.SIGINT, before)
        assert sum(each.name == "videor1_trl-input" for each in threading.enumerate()) == 2  # still under way


def test_on_two_ranks_the_main_process_asks_for_all(small_models, served, tmp_path):
    """With more contrast rollouts on the one than on the other."""
    address = served()["vllm_server_base_url"]
    one, other = run_two_ranks(small_models().path, tmp_path, address, served.folder)
    assert len(one["logged"]) == 3 and one["first"] != other["first"]
    assert one["rows"] != other["rows"]
    for entry in one["logged"]:
        assert entry["sampling/sampling_logp_difference/mean"] < FLOAT32
    assert max(each["vllm/contrast_logp_difference"] for each in one["logged"][:2]) < FLOAT32


@contextlib.contextmanager
def answering(answers, cut=False):
    """An address that answers paths with these texts, and says nothing to others; `cut`: it breaks off in the middle."""
    waiting = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in answers:
                waiting.wait(60)
                return
            self.send_response(200)
            if cut:
                self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(answers[self.path].encode())

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        waiting.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_that_never_answers_ends_the_run(small_models, media, tmp_path, monkeypatch):
    settings = {"vllm_mode": "server", "ddp_timeout": 1, "vllm_server_timeout": 0}
    monkeypatch.setattr("videor1_trl.sharing.vllm_server.CONNECT_SECONDS", 1)
    with answering({}) as address, pytest.raises(ConnectionError, match=f"No vLLM server answers at {address}"):
        make(small_models(), media, tmp_path, vllm_server_base_url=address, **settings)
    models = '{"data": [{"id": "tiny"}]}'
    silent = answering({"/health": "", "/v1/models": models, "/version": '{"version": "0.30.0"}'})
    with (
        silent as address,
        pytest.raises(RuntimeError, match=r"no answer to /inference/v1/generate within 1 s \(ddp_timeout\)"),
    ):
        make(small_models(), media, tmp_path, vllm_server_base_url=address, **settings)
    other = answering({"/health": "", "/v1/models": models, "/version": '{"version": "0.31.0"}'})
    with (
        other as address,
        pytest.raises(RuntimeError, match=r"is of version 0\.31\.0, and prompts are encoded here for 0\.30"),
    ):
        make(small_models(), media, tmp_path, vllm_server_base_url=address, **settings)


@pytest.mark.gpu
def test_on_gpus_weights_reach_a_server_through_nccl(small_models, media, compared, tmp_path):
    """Two GPUs: the last one for the server."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    with serving.serving(
        small_models().path, tmp_path, "--max-model-len", "512", device=torch.cuda.device_count() - 1
    ) as address:
        settings = {"vllm_mode": "server", "vllm_server_base_url": address, "use_cpu": False}
        make(small_models(), media, tmp_path, **settings).train()
    assert len(compared) == 3 and max(max(pair) for pair in compared) < 2e-3, compared
    assert vllm_client.packed_nccl_broadcast_producer.__module__.startswith("vllm.")  # not the tests' files
