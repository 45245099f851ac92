import type { Drill } from "./drill.ts";
import { collectorDown } from "./drills/collector-down.ts";
import { dbClaimContention } from "./drills/db-claim-contention.ts";
import { duplicateDelivery } from "./drills/duplicate-delivery.ts";
import { es429Inject } from "./drills/es-429-inject.ts";
import { esBulkPartial } from "./drills/es-bulk-partial.ts";
import { esDownConnect } from "./drills/es-down-connect.ts";
import { esWriteBlock4xx } from "./drills/es-write-block-4xx.ts";
import { projectionVersion } from "./drills/projection-version.ts";
import { stuckReclaim } from "./drills/stuck-reclaim.ts";
import type { DrillName } from "./menu.ts";

const all: readonly Drill[] = [
  esDownConnect,
  es429Inject,
  esWriteBlock4xx,
  esBulkPartial,
  dbClaimContention,
  stuckReclaim,
  duplicateDelivery,
  projectionVersion,
  collectorDown,
];

/** The drills of these names, in their order. */
export const drillsOf = (names: readonly DrillName[]): readonly Drill[] =>
  names.flatMap((name) => all.filter((drill) => drill.name === name));
