package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/gateway"
)

func (a *app) storeTaskCmd() *cobra.Command {
	task := &cobra.Command{
		Use:   "task",
		Short: "Seeds and verifications that run at the gateway or have run",
		Long: `A seed or a verification belongs to the gateway and goes on when the command that
has asked for it has left, or was given --detach. A seed that runs goes on when the
gateway is restarted, under its name; a verification ends. The gateway remembers the
last 32 that have ended, until it stops.`,
		Example: `  longhaul store task list
  longhaul store task watch store-3`,
		RunE: group,
	}
	task.AddCommand(a.storeTaskListCmd(), a.storeTaskWatchCmd(), a.storeTaskAbortCmd())
	return task
}

func (a *app) storeTaskListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tasks that this gateway knows, the newest last",
		Example: `  longhaul store task list
  longhaul store task list --json | jq '.[] | select(.state == "running")'`,
		Args: exactly(),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			tasks, err := a.gateway().StoreTasks(ctx)
			if err != nil {
				return err
			}
			return a.show(tasks, func(w io.Writer) error { return writeTasks(w, tasks) })
		}),
	}
}

func writeTasks(w io.Writer, tasks []gateway.StoreTask) error {
	t := newTable(w, "TASK", "KIND", "STATE", "STARTED", "READ", "OF", "DOING", "SOURCES")
	for _, s := range tasks {
		t.row(s.ID, s.Kind, s.State, moment(s.Started), size(s.Done), size(s.Total),
			or(cmp.Or(s.Error, s.Phase), "-"), or(strings.Join(s.Sources, " "), "-"))
	}
	return t.flush()
}

func (a *app) storeTaskWatchCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "watch TASK",
		Short: "Follow a task until it ends, and show what it has done",
		Long: `Follows a task until it ends, and shows what it has done; at once, if it has ended.
Its exit code is that of the command which has asked for the task.

Ctrl-C stops watching; the task goes on.`,
		Example: `  longhaul store task watch store-3
  longhaul store task watch store-3 --json | jq .fresh_pages`,
		Args:              exactly("TASK"),
		ValidArgsFunction: a.completeFirst(a.taskIDs),
		RunE: func(c *cobra.Command, args []string) error {
			gw := a.gateway()
			defer gw.Close()
			t, err := gw.StoreTask(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.awaitTask(c.Context(), t, func(os.Signal, *taskDisplay) error { return goesOn(t) })
		},
	}
}

func (a *app) storeTaskAbortCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "abort TASK",
		Short: "End a task; what it has done stays done",
		Long: `Asks a task to end, which may take a moment. What it has done stays done, and asking
for the same again goes on where it was. It is an error if the task has ended (exit
code 5).`,
		Example:           "  longhaul store task abort store-3",
		Args:              exactly("TASK"),
		ValidArgsFunction: a.completeFirst(a.taskIDs),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
			t, err := a.gateway().AbortStoreTask(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(t, func(w io.Writer) error { return writeTasks(w, []gateway.StoreTask{t}) })
		}),
	}
}
