# Two commands do everything, set-up included: `make run` and `make test`.
PYTHON ?= python3
CAPTIONER ?= photo
BIN := .venv/bin
READY := .venv/ready
# Jupyter's servers cut the connection at a message of 10 MB, such as the upload of a large photo; these take 100 MB.
LARGE := "{'websocket_max_message_size': 104857600}"

.PHONY: help setup run test test-unit test-browser test-real test-kaggle demo kaggle bench bench-quick bench-growth bench-quality bench-small-rate bench-gpu bench-threads lab app pair photo clean

help:  ## show these lines
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $(READY)

setup: $(READY)  ## make the environment in .venv

run: $(READY)  ## the numbered notebooks on the drawn world, into runs/tiny (minutes on a CPU)
	$(BIN)/clipxgpt notebooks --out runs/tiny

test: $(READY)  ## every test, and every notebook and its solutions by pytest --nbval
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --dist loadfile tests
	$(BIN)/pytest --nbval --nbval-current-env notebooks

test-unit: $(READY)  ## the tests alone, without the notebooks
	$(BIN)/pytest -n auto --dist loadfile tests

test-browser: $(READY)  ## the explorer, app, report and demo page in a real browser (Chromium; skipped where there is none)
	$(BIN)/pytest -rs tests/browser

test-real: $(READY)  ## the real architectures with random weights, where real photos lie beside the checkout (12 GB)
	REAL_SIZE=1 $(BIN)/pytest -s tests/test_real_size.py

test-kaggle: $(READY) .venv-kaggle/ready  ## the built kernels, run as Kaggle runs them, with its stock image's versions
	KAGGLE_PYTHON=$(CURDIR)/.venv-kaggle/bin/python $(BIN)/pytest -s tests/test_kaggle_sessions.py

.venv-kaggle/ready: kaggle/stock-requirements.txt
	$(PYTHON) -m venv .venv-kaggle
	.venv-kaggle/bin/python -m pip install --quiet --requirement kaggle/stock-requirements.txt
	@touch $@

demo: $(READY)  ## a page that captions photos in the browser, into build/demo: make demo CAPTIONER=runs/mine for your own
	$(BIN)/clipxgpt export $(CAPTIONER) --out build/exported
	$(BIN)/clipxgpt page build/exported --out build/demo --examples notebooks/photos --at-most 30

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

bench-quality: $(READY)  ## minutes until 0.8 of the drawn world's captions are right, by recipe (25 minutes)
	$(BIN)/python -m benchmarks.quality

bench-small-rate: $(READY)  ## right captions against the number of steps at 9e-6, resumable (half an hour)
	$(BIN)/python -m benchmarks.small_rate --seeds 2

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
STAGES := --cache runs/photo/embeddings
PHOTOS := --images $(FLICKR8K)/Images --captions $(FLICKR8K)/captions.txt --splits $(FLICKR8K)/splits.csv
SCORED := $(PHOTOS) $(STAGES)

photo: $(READY)  ## rebuild the captioner in helpers/photo: make photo FLICKR8K=folder TEXT=captions.csv (75 minutes)
	$(BIN)/clipxgpt convert efficientnet-lite2 --reduce-to 224 --out runs/photo/encoder
	$(BIN)/clipxgpt pretrain --text $(TEXT) --out runs/photo/language
	for seed in 0 1 2; do \
	  $(BIN)/clipxgpt train --preset photo --clip runs/photo/encoder --gpt2 runs/photo/language/gpt2 --text $(TEXT) \
	    $(SCORED) --seed $$seed --out runs/photo/$$seed --resume || exit; \
	done
	$(BIN)/python -m benchmarks.photo runs/photo/0 runs/photo/1 runs/photo/2 $(SCORED) --split test --out benchmarks/results/photo-test.json
	$(BIN)/python -c "from helpers import CaptionWriter; CaptionWriter.load('runs/photo/0').save('runs/photo/half', half=True)"
	cp runs/photo/half/* helpers/photo/

# Every committed table of notebooks/results: one thing changed at a time, five seeds each. What is finished is not
# trained again, so a target that was interrupted goes on; to measure a table anew, remove its CSV and its JSON.
TABLES := notebooks/results
ABLATE_WORLD := $(BIN)/clipxgpt ablate

.PHONY: results
results: $(READY)  ## the tables of the drawn world, into notebooks/results (four hours on 2 cores); then make docs
	$(ABLATE_WORLD) --epochs 1 --vary mapper=encoder,mlp,queries --vary mapper_lr=0.0002,0.0007,0.002,7e-05,2.5e-05 --out $(TABLES)/mapper.csv
	$(ABLATE_WORLD) --seeds 8 --epochs 1 --vary prefix_length=4,1,2,10,20 --out $(TABLES)/prefix_length.csv
	$(ABLATE_WORLD) --epochs 1 --vary freezing=first-and-last,frozen,last-n,full --out $(TABLES)/freezing.csv
	$(ABLATE_WORLD) --epochs 1 --freezing frozen --vary mapper_lr=0.0002,0.0007,0.002 --out $(TABLES)/frozen_lr.csv
	$(ABLATE_WORLD) --epochs 1 --freezing lora --vary gpt2_lr=0.003,0.01,0.03 --out $(TABLES)/lora_lr.csv
	$(ABLATE_WORLD) --epochs 1 --vary train_embeddings=true,false --out $(TABLES)/train_embeddings.csv
	$(ABLATE_WORLD) --epochs 1 --vary pooling=pooled,patches --out $(TABLES)/pooling.csv
	$(ABLATE_WORLD) --epochs 2 --vary precision=fp32,bf16 --out $(TABLES)/precision.csv
	$(ABLATE_WORLD) --epochs 2 --vary defect=none,double-softmax,absolute-lr,mixed-images,double-wpe,triple-wpe,bos-at-inference,first-token-lost,end-never-learned,padding-learned,split-by-rows \
	  --out $(TABLES)/defect.csv
	$(ABLATE_WORLD) --epochs 2 --vary train_images=2378,75,150,300,600,1200 --out $(TABLES)/train_images.csv
	$(BIN)/python -m benchmarks.quality
	$(BIN)/python -m benchmarks.small_rate --seeds 2

ABLATE_PHOTOS := $(BIN)/clipxgpt ablate --preset photo --clip runs/photo/encoder --gpt2 runs/photo/language/gpt2 --text $(TEXT) \
  $(PHOTOS) --epochs 1 --batch-size 64
POOLED := --pooling pooled --cache runs/photo/embeddings-pooled

.PHONY: photo-ablations
photo-ablations: $(READY)  ## the tables of photos, into notebooks/results/photo, after make photo (twelve hours on 2 cores)
	$(BIN)/python -m benchmarks.untrained runs/photo/encoder runs/photo/language/gpt2 runs/untrained
	$(ABLATE_PHOTOS) $(STAGES) --vary gpt2=runs/photo/language/gpt2,runs/untrained/gpt2 --out $(TABLES)/photo/gpt2.csv
	$(ABLATE_PHOTOS) $(STAGES) --vary clip=runs/photo/encoder,runs/untrained/encoder --out $(TABLES)/photo/clip.csv
	$(ABLATE_PHOTOS) $(STAGES) --vary freezing=full,frozen,first-and-last,last-n,lora --out $(TABLES)/photo/freezing.csv
	$(ABLATE_PHOTOS) $(STAGES) --freezing lora --vary gpt2_lr=0.001,0.003,0.01 --out $(TABLES)/photo/lora_lr.csv
	$(ABLATE_PHOTOS) $(STAGES) --freezing frozen --vary mapper_lr=0.002,0.0005,0.006 --out $(TABLES)/photo/frozen_lr.csv
	$(ABLATE_PHOTOS) $(STAGES) --vary train_images=5705,100,300,1000,3000 --out $(TABLES)/photo/train_images.csv
	$(ABLATE_PHOTOS) $(STAGES) --vary prefix_length=4,1,2,10 --out $(TABLES)/photo/prefix_length.csv
	$(ABLATE_PHOTOS) $(POOLED) --mapper-layers 2 --vary mapper=mlp,encoder,queries --vary mapper_lr=0.002,0.0003,0.0001 \
	  --out $(TABLES)/photo/mapper.csv
	$(ABLATE_PHOTOS) $(POOLED) --mapper-layers 2 --mapper queries --vary pooling=pooled,patches --out $(TABLES)/photo/pooling.csv
	$(BIN)/clipxgpt pretrain $(PHOTOS) --out runs/scratch
	$(ABLATE_PHOTOS) $(POOLED) --mapper-layers 2 --vary clip=runs/photo/encoder,runs/scratch/clip --out $(TABLES)/photo/scratch.csv

WORLD := --images data/drawn/flickr30k_images --captions data/drawn/results.csv
SEEN = --eyes tiny tiny runs/judges/tiny-0,runs/judges/tiny-1,runs/judges/tiny-2 \
  --eyes second runs/judges/drawn-1/clip runs/judges/drawn-1-0,runs/judges/drawn-1-1,runs/judges/drawn-1-2
LITE = --eyes lite2 runs/judges/lite2-0/clip,runs/judges/lite2-1/clip runs/photo/0,runs/photo/1,runs/photo/2 \
  --eyes lite0 runs/judges/lite0-0/clip -

.PHONY: judges
judges: $(READY)  ## spread of trainings, and second judges, into notebooks/results, after make run and make photo (three quarters of an hour)
	$(BIN)/clipxgpt draw --out data/pretraining --images 8000 --seed 1000
	$(BIN)/clipxgpt pretrain --images data/pretraining/flickr30k_images --captions data/pretraining/results.csv --seed 1 --out runs/judges/drawn-1
	for seed in 0 1 2; do \
	  $(BIN)/clipxgpt train --preset tiny $(WORLD) --cache data/drawn-embeddings --seed $$seed --out runs/judges/tiny-$$seed --resume || exit; \
	done
	for seed in 0 1 2; do \
	  $(BIN)/clipxgpt train --preset tiny $(WORLD) --clip runs/judges/drawn-1/clip --cache runs/judges/drawn-1-embeddings --seed $$seed --out runs/judges/drawn-1-$$seed --resume || exit; \
	done
	$(BIN)/clipxgpt train --preset tiny $(WORLD) --cache data/drawn-embeddings --text-share 1 --out runs/judges/tiny-blind --resume
	$(BIN)/clipxgpt evaluate -C runs/judges/tiny-0 -C runs/judges/tiny-1 -C runs/judges/tiny-2 $(WORLD) --out runs/judges/test
	cp runs/judges/test/trainings.json notebooks/results/trainings.json
	$(BIN)/python -m benchmarks.new_scenes $(foreach seed,0 1 2,runs/judges/test/$(seed)/captions.csv) --out notebooks/results/new-scenes.json
	$(BIN)/clipxgpt evaluate -C runs/judges/tiny-blind $(WORLD) --out runs/judges/tiny-blind/test
	cp runs/judges/tiny-blind/test/metrics.json notebooks/results/blind.json
	$(BIN)/python -m benchmarks.judges $(SEEN) $(WORLD) --out notebooks/results/judges-drawn.json
	$(BIN)/clipxgpt evaluate -C runs/photo/0 -C runs/photo/1 -C runs/photo/2 $(PHOTOS) --out runs/judges/photo-test
	cp runs/judges/photo-test/trainings.json notebooks/results/trainings-photo.json
	$(BIN)/clipxgpt convert efficientnet-lite0 --out runs/judges/lite0
	$(BIN)/clipxgpt pretrain --vision runs/judges/lite0 $(PHOTOS) --out runs/judges/lite0-0
	for seed in 0 1 2; do $(BIN)/clipxgpt pretrain --vision runs/photo/encoder $(PHOTOS) --seed $$seed --out runs/judges/lite2-$$seed || exit; done
	$(BIN)/python -m benchmarks.locked_clip runs/judges/lite2-0 runs/judges/lite2-1 runs/judges/lite2-2 --out notebooks/results/locked-clip.json
	$(BIN)/python -m benchmarks.judges $(LITE) $(PHOTOS) --out notebooks/results/judges-photo.json

.PHONY: people
people: $(READY)  ## the people and things that captions of photos name, into notebooks/results, after make judges (a minute)
	$(BIN)/python -m pip install --quiet textblob
	$(BIN)/python -m benchmarks.people $(foreach seed,0 1 2,runs/judges/photo-test/$(seed)/captions.csv) --captioner runs/photo/0 \
	  $(SCORED) --out notebooks/results/people.json

SHARED ?= data
.PHONY: photo-figures
photo-figures: $(READY)  ## the captioner of photos by other figures, after make photo: SHARED=folder with flickr8k/ and flickr30k-sample/ (half an hour)
	$(BIN)/python -m benchmarks.own_photos --shared $(SHARED)
	$(BIN)/python -m benchmarks.large_photos --shared $(SHARED)
	$(BIN)/python -m benchmarks.familiarity --photos $(SHARED)/flickr8k/Images --names $(SHARED)/flickr8k/splits.csv \
	  --more $(SHARED)/flickr30k-sample/full_size
	$(BIN)/python -m benchmarks.calibration runs/photo/0 runs/photo/1 runs/photo/2 $(SCORED)
	$(BIN)/python -m benchmarks.predict --photos $(SHARED)/flickr30k-sample/full_size
	$(BIN)/python -m benchmarks.probing --seeds 2

.PHONY: docs
docs: $(READY)  ## write docs/results.md and draw the pictures of README and docs, after make run
	$(BIN)/python docs/results.py
	$(BIN)/python docs/draw.py

clean:  ## remove the environments and everything made: .venv, .venv-kaggle, data, runs, build
	rm -rf .venv .venv-kaggle data runs build
