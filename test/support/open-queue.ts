import { afterAll, beforeEach } from "bun:test";
import type { Database, DbOptions } from "../../src/db/client.ts";
import type { Queue } from "../../src/outbox/queue.ts";
import { testDatabase } from "./postgres.ts";
import { empty } from "./queue.ts";

/** A pool on the calling file's own database, whose queue is empty before each test. Closed after the last. */
export async function openQueue(queue: Queue, options?: Partial<DbOptions>): Promise<Database> {
  const database = (await testDatabase()).open(options);
  afterAll(() => database.close());
  beforeEach(() => empty(database.db, queue));
  return database;
}
