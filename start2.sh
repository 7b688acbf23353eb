cd /work/main
export LAP_HARNESS_COMMAND_CLAUDE_CODE="bash --norc --noprofile" LAP_VAULT=off
exec /work/venv/bin/python -m backend --port 0 --data-dir /tmp/wr2/data > /tmp/wr2/platform2.log 2>&1
