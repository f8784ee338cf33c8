# Two commands do everything, set-up included: `make run` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# Jupyter's servers cut the connection at a message of 10 MB, such as the upload of a large photo; these take 100 MB.
LARGE := "{'websocket_max_message_size': 104857600}"

.PHONY: help setup run test test-unit test-browser test-real test-kaggle kaggle bench bench-quick bench-growth bench-quality bench-gpu bench-threads lab app pair photo clean

help:  ## show these lines
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $(READY)

setup: $(READY)  ## make the environment in .venv

run: $(READY)  ## notebooks 01 to 07 on the drawn world, into runs/tiny (minutes on a CPU)
	$(BIN)/clipxgpt notebooks --out runs/tiny

test: $(READY)  ## every test, and every notebook by pytest --nbval
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --dist loadfile tests
	$(BIN)/pytest --nbval --nbval-current-env notebooks

test-unit: $(READY)  ## the tests alone, without the notebooks
	$(BIN)/pytest -n auto --dist loadfile tests

test-browser: $(READY)  ## the explorer, the app and the report in a real browser (Chromium; skipped where there is none)
	$(BIN)/pytest -rs tests/browser

test-real: $(READY)  ## the real architectures with random weights, where real photos lie beside the checkout (12 GB)
	REAL_SIZE=1 $(BIN)/pytest -s tests/test_real_size.py

test-kaggle: $(READY) .venv-kaggle/ready  ## the built kernels, run as Kaggle runs them, with its stock image's versions
	KAGGLE_PYTHON=$(CURDIR)/.venv-kaggle/bin/python $(BIN)/pytest -s tests/test_kaggle_sessions.py

.venv-kaggle/ready: kaggle/stock-requirements.txt
	$(PYTHON) -m venv .venv-kaggle
	.venv-kaggle/bin/python -m pip install --quiet --requirement kaggle/stock-requirements.txt
	@touch $@

kaggle: $(READY)  ## build and check what is pushed to Kaggle, into build/kaggle: make kaggle KAGGLE_USERNAME=name
	$(BIN)/python kaggle/build_kernels.py $(if $(KAGGLE_USERNAME),--username $(KAGGLE_USERNAME))
	$(BIN)/python kaggle/check.py

bench: $(READY)  ## every work against its baseline, at real size on this machine, into benchmarks/results (20 minutes)
	$(BIN)/python -m benchmarks.run

bench-quick: $(READY)  ## three of them, once, in under three minutes
	$(BIN)/python -m benchmarks.run --quick

bench-growth: $(READY)  ## how time and memory grow with pictures, captions, prefix and batch (10 minutes)
	$(BIN)/python -m benchmarks.growth

bench-gpu:  ## what a GPU does, in under 8 minutes, with the PyTorch that is there; OUT=folder for the results
	$(if $(wildcard $(BIN)/python),$(BIN)/python,python3) -m benchmarks.gpu $(if $(OUT),--out $(OUT))

bench-threads: $(READY)  ## a small model's time on an idle machine and beside busy loops (5 minutes)
	$(BIN)/python -m benchmarks.threads

bench-quality: $(READY)  ## minutes until 0.8 of the drawn world's captions are right, by recipe (20 minutes)
	$(BIN)/python -m benchmarks.quality

lab: $(READY)  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks --ServerApp.tornado_settings=$(LARGE)

app: $(READY)  ## the explorer as a page of its own, for one person or a few: CLIPXGPT_CAPTIONER=DIR make app
	$(BIN)/python -m helpers.ui.server notebooks/app.ipynb

pair: $(READY)  ## draw the pretraining world and rebuild the pair in helpers/tiny (about ten minutes)
	$(BIN)/clipxgpt draw --out data/pretraining --images 8000 --seed 1000
	$(BIN)/clipxgpt pretrain --images data/pretraining/flickr30k_images --captions data/pretraining/results.csv --out helpers/tiny

# The photos of Flickr8k as Kaggle has them, with a CSV of splits, and a CSV of Flickr30k's captions with theirs.
FLICKR8K ?= data/flickr8k
TEXT ?= data/flickr30k-captions.csv.gz
SCORED := --images $(FLICKR8K)/Images --captions $(FLICKR8K)/captions.txt --splits $(FLICKR8K)/splits.csv --cache runs/photo/embeddings

photo: $(READY)  ## rebuild the captioner in helpers/photo: make photo FLICKR8K=folder TEXT=captions.csv (45 minutes)
	$(BIN)/clipxgpt convert efficientnet-lite2 --reduce-to 224 --out runs/photo/encoder
	$(BIN)/clipxgpt pretrain --text $(TEXT) --out runs/photo/language
	for seed in 0 1 2; do \
	  $(BIN)/clipxgpt train --preset photo --clip runs/photo/encoder --gpt2 runs/photo/language/gpt2 --text $(TEXT) \
	    $(SCORED) --seed $$seed --out runs/photo/$$seed --resume || exit; \
	done
	$(BIN)/python -m benchmarks.photo runs/photo/0 runs/photo/1 runs/photo/2 $(SCORED) --split test --out benchmarks/results/photo-test.json
	$(BIN)/python -c "from helpers import CaptionWriter; CaptionWriter.load('runs/photo/0').save('runs/photo/half', half=True)"
	cp runs/photo/half/* helpers/photo/

# One thing changed at a time, five seeds each, one epoch; what is finished is not trained again.
ABLATE = $(BIN)/clipxgpt ablate --preset photo --clip runs/photo/encoder --gpt2 runs/photo/language/gpt2 --text $(TEXT) $(SCORED) \
  --epochs 1 --batch-size 64 --seeds 5

.PHONY: photo-ablations
photo-ablations:  ## the original's questions on photos, into notebooks/results/photo, after make photo (three hours)
	$(BIN)/python -m benchmarks.untrained runs/photo/encoder runs/photo/language/gpt2 runs/untrained
	$(ABLATE) --vary gpt2=runs/photo/language/gpt2,runs/untrained/gpt2 --out notebooks/results/photo/gpt2.csv
	$(ABLATE) --vary clip=runs/photo/encoder,runs/untrained/encoder --out notebooks/results/photo/clip.csv
	$(ABLATE) --vary freezing=full,frozen,first-and-last,last-n,lora --out notebooks/results/photo/freezing.csv
	$(ABLATE) --vary train_images=5705,100,300,1000,3000 --out notebooks/results/photo/train_images.csv
	$(ABLATE) --vary prefix_length=4,1,2,10 --out notebooks/results/photo/prefix_length.csv

.PHONY: docs
docs: $(READY)  ## draw the pictures of README and docs, after make run
	$(BIN)/python docs/draw.py

clean:  ## remove the environments and everything made: .venv, .venv-kaggle, data, runs, build
	rm -rf .venv .venv-kaggle data runs build
