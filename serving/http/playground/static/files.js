/**
 * Files that were dropped or chosen, as pages: looked at here first, so that what the server would refuse is
 * said before it is sent. Embeds nothing.
 */

import { base64Of, bytesOf } from "./base64.js";
import { counted, spelledBytes } from "./elements.js";
import { Page } from "./library.js";
import { readPdfPages } from "./wire.js";

/** A file that is not taken; the message is for people. */
export class FileError extends Error {}

/** The pages in `file`: one of a picture, all of a PDF. */
export async function pagesOf(file, limits, options) {
  if (isPdf(file)) return pdfPages(file, limits, options);
  const blob = pictureOf(file, limits);
  return [new Page({ title: file.name, source: "image", file: file.name, blob })];
}

/** `file` as a picture that the server takes, as far as can be told here. */
export function pictureOf(file, limits) {
  if (!file.type.startsWith("image/")) {
    const kind = file.type || "a kind of file that this browser does not know";
    throw new FileError(`Images and PDFs are taken; this is ${kind}.`);
  }
  checkSize(file, limits.max_image_bytes, "an image");
  return file;
}

function isPdf(file) {
  return file.type === "application/pdf" || file.name.toLowerCase().endsWith(".pdf");
}

async function pdfPages(file, limits, options) {
  checkSize(file, limits.max_pdf_bytes, "a PDF");
  const pictures = await readPdfPages(await base64Of(file), options);
  return pictures.map(
    (picture, at) =>
      new Page({
        title: `${file.name}, page ${at + 1}`,
        source: "pdf",
        file: file.name,
        number: at + 1,
        blob: new Blob([bytesOf(picture)], { type: "image/png" }),
      }),
  );
}

function checkSize(file, most, what) {
  if (file.size === 0) throw new FileError("The file is empty.");
  if (file.size > most) {
    throw new FileError(
      `It has ${spelledBytes(file.size)}; this server takes ${what} of up to ${spelledBytes(most)}.`,
    );
  }
}

/** What may be sent, in a sentence. */
export function spelledLimits(limits) {
  return (
    `Images up to ${spelledBytes(limits.max_image_bytes)}, PDFs up to ` +
    `${spelledBytes(limits.max_pdf_bytes)} and ${counted(limits.max_pdf_pages, "page")}.`
  );
}
