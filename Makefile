# make demo                                    a simulated flight through the real node, and one over a map
# make demo SOURCE=FLIGHT                       your own folder of images, video or rosbag2; out/demo/
# make test [ARGS="-k lifecycle"]               every test that this machine can run
# make fuzz MINUTES=60                         hostile inputs, so long (or INPUTS=1000000) for each kind
# make soak HOURS=1                             real processes, a fault every 20 s (or MINUTES=10); out/soak/
# make licences [AUDIT=all.zip]                 licences of all that is installed; AUDIT: osv.dev's list
# make lint                                     ruff, mypy and the rules of imports
# make docs                                     the documentation as pages, links checked; out/site/
# make build                                    only set up and build
# make clean                                    remove builds and results; make distclean: .venv too
#
# The first run sets up what is needed (see tools/bootstrap). PYTHON=, ROS_DISTRO= and GDI_VENV=
# choose interpreter, ROS release and the virtual environment's place.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test fuzz soak licences lint docs build clean distclean

RUN := tools/with_env
ARGS ?=
SOURCE ?=
MINUTES ?= 1
OUT ?= out/demo
# Never leave the machine: discovery is kept to this host.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

build:
	@tools/bootstrap run

demo:
	@source="$(SOURCE)"; stage=run; kind=(--source "$$source"); \
	if [[ -z $$source ]]; then stage=demo; kind=(--localize); fi; \
	tools/bootstrap $$stage && \
	$(RUN) python -m gps_denied_inference demo --out "$(OUT)" "$${kind[@]}" $(ARGS)

test:
	@tools/bootstrap test
	@$(RUN) python tools/run_tests.py $(ARGS)

fuzz:
	@tools/bootstrap test
	@OPENCV_LOG_LEVEL=OFF GDI_FUZZ_MINUTES=$(if $(INPUTS),0,$(MINUTES)) GDI_FUZZ_INPUTS=$(or $(INPUTS),0) $(RUN) python -m pytest -q -s test/unit/fuzz test/node/test_fuzz_lifecycle.py $(ARGS)

soak: export PYTHONPATH := test/support:test/unit/autopilot:test/process:$(PYTHONPATH)
soak:
	@tools/bootstrap test
	@$(RUN) python test/soak/run_soak.py --hours $(or $(HOURS),0) \
		--minutes $(if $(HOURS),0,$(if $(filter command line,$(origin MINUTES)),$(MINUTES),10)) $(ARGS)

licences:
	@tools/bootstrap test
	@$(RUN) python tools/licences.py $(if $(AUDIT),--audit "$(AUDIT)") $(ARGS)

lint:
	@tools/bootstrap test
	@$(RUN) python -m ruff check .
	@$(RUN) python -m ruff format --check .
	@$(RUN) python -m mypy
	@$(RUN) lint-imports --no-cache

docs:
	@tools/bootstrap docs
	@$(RUN) --no-overlay python -m mkdocs build --quiet
	@echo "written: out/site/index.html"

clean:
	rm -rf build install log out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-*
