import type { Elysia } from "elysia";
import type { Db } from "../db/client.ts";
import type { Unit } from "../library/change.ts";
import type { Expected, Listed, Page } from "../library/living.ts";
import { type Desk, writeFor } from "./desk.ts";
import { everyQuery, fields, optional, uuid, wholeNumber } from "./schema.ts";

/** What the routes of all five kinds of entity have in common. */

/** An entity as the caller is shown it. */
type Shown = { readonly id: string; readonly version: string };

export const idParams = fields({ id: uuid() });

/** The entity; its version is its entity tag (RFC 9110 §8.8.3). */
export const answer = (body: Shown): Response => Response.json(body, { headers: { etag: `"${body.version}"` } });

/** 201 with the entity and where it is. */
export function created(path: string, body: Shown): Response {
  const headers = { location: `${path}/${body.id}`, etag: `"${body.version}"` };
  return Response.json(body, { status: 201, headers });
}

/**
 * The versions that If-Match names (RFC 9110 §13.1.1): a write over any other is refused, so that nobody overwrites what they have not seen. Weak tags count as well: a proxy that
 * compresses makes them of ours, and what they stand for is the same version. What is no tag of ours matches nothing.
 */
export function expectedVersions(request: Request): Expected {
  const header = request.headers.get("if-match")?.trim();
  if (header === undefined || header === "*") return undefined;
  return header.split(",").flatMap((tag) => {
    const version = /^(?:W\/)?"(\d{1,18})"$/.exec(tag.trim())?.[1];
    return version === undefined ? [] : [BigInt(version)];
  });
}

/** Which page of a list is asked for. */
export const pageFields = {
  limit: optional(wholeNumber(1, 100)),
  offset: optional(wholeNumber(0, 1_000_000)),
  ...everyQuery,
};

export const pageOf = (query: { readonly limit?: string; readonly offset?: string }): Page => ({
  limit: Number(query.limit ?? 50),
  offset: Number(query.offset ?? 0),
});

/** A page as the caller is shown it. */
export const answerPage = <T>({ total, items }: Listed<T>, page: Page, shown: (item: T) => object) => ({
  total,
  items: items.map(shown),
  ...page,
});

/** GET and DELETE by id; `deletes` says what a delete takes along. */
export function entityRoutes<T>(
  app: Elysia,
  desk: Desk,
  path: string,
  shown: (entity: T) => Shown,
  read: (db: Db, id: string) => Promise<T>,
  remove: (unit: Unit, id: string, expected: Expected) => Promise<void>,
  deletes: string,
): void {
  app
    .get(`${path}/:id`, async ({ params }) => answer(shown(await read(desk.db, params.id))), {
      params: idParams,
      detail: { summary: "Returns one by id." },
    })
    .delete(
      `${path}/:id`,
      async ({ params, request }) => {
        await writeFor(desk, request, (unit) => remove(unit, params.id, expectedVersions(request)));
        return new Response(null, { status: 204 });
      },
      { params: idParams, detail: { summary: deletes } },
    );
}
