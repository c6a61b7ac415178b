# Variables a person sets:
#   DATA=folder        descriptors of your own: a job is written for them
#   JOB=file           the job to run                      (default: jobs/demo.yaml)
#   CLUSTER=file       where to compute, cluster_config/*  (default: this machine)
#   SCHEDULER=address  a running scheduler, tcp://host:port or tls://host:port
#   WORKDIR=folder     data sets, steps and runs; or a URL like s3://bucket/folder  (default: work)
#   ROWS=number        photos of the demo data             (default: 5000)
#   KEEP=1             leave the Dask cluster open after the job, for its dashboard
SHELL   := /bin/bash
PYTHON  ?= $(shell command -v python3.11 || command -v python3)
WORKDIR ?= work
ROWS    ?= 5000
VENV    := .venv
BIN     := $(VENV)/bin

# Job files stay on this machine.
JOBS    := $(if $(findstring ://,$(WORKDIR)),work,$(WORKDIR))/jobs

ifdef DATA
JOB     := $(JOBS)/$(notdir $(abspath $(DATA))).yaml
endif
JOB     ?= jobs/demo.yaml
# Make cannot look into an object store: there the command looks itself.
DEMO    := $(if $(findstring ://,$(WORKDIR)),demo-stored,$(WORKDIR)/demo/demo.json)

# The demo's data are made when the job reads them and they are not there.
NEEDS_DEMO := $(shell grep -qs '{workdir}/demo' $(JOB) && echo $(DEMO))
PLACE   := $(if $(CLUSTER),--cluster $(CLUSTER)) $(if $(SCHEDULER),--scheduler $(SCHEDULER))
KEPT    := $(if $(KEEP),--keep)
RUN     := $(BIN)/vehclust

.PHONY: help convert cluster plan demo-data published soak test check clean
.DEFAULT_GOAL := help

help: ## show what can be made
	@echo "make convert cluster              set up, make demo data, convert, cluster, draw"
	@echo "make convert cluster DATA=folder  the same for your descriptors"
	@echo
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo
	@sed -n '2,8s/^#   //p' $(firstword $(MAKEFILE_LIST))

convert: $(VENV)/ready $(JOB) $(NEEDS_DEMO) ## descriptors -> chunked zarr, once
	@$(RUN) convert $(JOB) --workdir $(WORKDIR) $(PLACE) > /dev/null

cluster: $(VENV)/ready $(JOB) $(NEEDS_DEMO) ## reduce, cluster, score, draw
	@$(RUN) run $(JOB) --workdir $(WORKDIR) $(PLACE) $(KEPT)

plan: $(VENV)/ready $(JOB) $(NEEDS_DEMO) ## steps, memory and disk of the job
	@$(RUN) plan $(JOB) --workdir $(WORKDIR)

demo-data: $(DEMO) ## the synthetic twin of the case

# All rows of the case unless ROWS is given; hours, see docs/benchmarks.md.
published: $(VENV)/ready ## published scores beside ours, on all rows
	@$(BIN)/python -m benchmarks.published_table --workdir $(WORKDIR)/published \
	  $(if $(filter file,$(origin ROWS)),,--rows $(ROWS))

.PHONY: demo-stored
demo-stored: | $(VENV)/ready
	@$(RUN) demo --rows $(ROWS) --out $(WORKDIR)/demo --once > /dev/null

ifeq (,$(findstring ://,$(WORKDIR)))
$(DEMO): | $(VENV)/ready
	@$(RUN) demo --rows $(ROWS) --out $(WORKDIR)/demo > /dev/null
endif

$(JOBS)/%.yaml: | $(VENV)/ready
	@mkdir -p $(dir $@)
	@$(RUN) init $(DATA) --out $@ > /dev/null

SOAKS   ?= 50

soak: $(VENV)/dev ## SOAKS=50 times: kill something at random, go on, compare every byte
	$(BIN)/python -m benchmarks.soak --soaks $(SOAKS)

test: $(VENV)/dev ## every test that can run here
	$(BIN)/python -m pytest

check: $(VENV)/dev ## style, types, floors, tests of kernels
	$(BIN)/ruff check vehclust_dask tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/kernels

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "vehclust needs Python 3.11 or later: $(PYTHON) is not one; say make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "this Python has no venv with pip: on Debian and Ubuntu run 'apt-get install python3.11-venv' (or python3-venv), then again" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "setting up $(VENV) (a minute or two, once)" >&2; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/dev: $(VENV)/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean: ## remove the environment and the work folder's demo
	rm -rf $(VENV) $(WORKDIR)/demo
